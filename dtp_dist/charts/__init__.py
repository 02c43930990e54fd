"""What pages and pictures are drawn with: SVG, axes, colours."""
