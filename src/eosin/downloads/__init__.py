"""Files by https, resumed and verified; only ever because the user asked."""
