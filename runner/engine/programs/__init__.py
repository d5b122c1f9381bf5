"""What a rank runs. The harness names these by strings and never imports them."""
