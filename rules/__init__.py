"""The built-in rules, one file per fault. This folder stays flat: sub-folders would go missing from a wheel."""
