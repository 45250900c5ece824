"""Everything that is kept, as a stream of records in an order that stays."""
