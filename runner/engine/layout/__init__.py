"""Strategies: how weights, features, specs and domains lie on ranks; collectives."""
