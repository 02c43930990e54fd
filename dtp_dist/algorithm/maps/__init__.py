"""Differentiable maps: what f_l and g_l are made of."""
