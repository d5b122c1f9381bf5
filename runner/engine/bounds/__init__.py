"""The propagation driver: IBP, CROWN, α-CROWN over the bound graph. Knows no processes."""
