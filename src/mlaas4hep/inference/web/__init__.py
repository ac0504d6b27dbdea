"""What HTTP needs whatever protocol it carries: limits on connections and bodies, who may ask, how errors look, the start page."""
