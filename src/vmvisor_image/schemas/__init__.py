"""On-disk structures, each declared once with `@record`; declarations only, without reading."""
