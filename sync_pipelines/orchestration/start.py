"""Whether schedules and sensors run from the start, as `SYNC_PIPELINES_START` says.

What somebody has started or stopped by hand in Dagster stays so: Dagster keeps that, and asks the definition no more.
"""

from dagster import DefaultScheduleStatus, DefaultSensorStatus

from sync_pipelines.settings.model import starts_running


def schedule_status() -> DefaultScheduleStatus:
    """Returns the state of a schedule that nobody has started or stopped by hand.

    Raises:
        ConfigurationError: A setting has a value that is not allowed: nothing is loaded then, and nothing runs.
    """
    return DefaultScheduleStatus.RUNNING if starts_running() else DefaultScheduleStatus.STOPPED


def sensor_status() -> DefaultSensorStatus:
    """Returns the state of a sensor that nobody has started or stopped by hand.

    Raises:
        ConfigurationError: A setting has a value that is not allowed: nothing is loaded then, and nothing runs.
    """
    return DefaultSensorStatus.RUNNING if starts_running() else DefaultSensorStatus.STOPPED
