"""Parts of files that other hosts of the cluster hold: asked for, served, verified; the store is always behind them."""
