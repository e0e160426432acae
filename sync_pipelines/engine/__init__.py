"""Pure declarations and decisions: no Dagster, no SQLAlchemy, no pandas, no clock and no disk."""
