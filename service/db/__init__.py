"""Everything that speaks SQL. Sessions are sync; a transaction is committed by whoever opened it."""
