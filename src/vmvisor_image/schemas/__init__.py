"""On-disk structures, declared once each with `@record`; declarations only, no reading."""
