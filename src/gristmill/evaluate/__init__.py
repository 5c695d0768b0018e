"""Model x Tasks -> Report. Changes nothing."""
