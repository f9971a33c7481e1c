-- The power limit that a GPU's own readings tell, what its limit is of, and values that stood for missing ones.

ALTER TABLE segment_profile ADD COLUMN board_limit_mw BIGINT;
ALTER TABLE segment_profile ADD COLUMN limit_from VARCHAR;
ALTER TABLE segment_profile ADD COLUMN blank_values BIGINT;
