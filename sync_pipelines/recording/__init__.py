"""What a fetch brought, recorded: items as typed columns in a snapshot, from which each comes back exactly."""
