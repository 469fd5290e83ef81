"""One file a published model, each exporting Model and tiny(); the only folder that imports flax.linen."""
