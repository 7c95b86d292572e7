"""HTTP and JSON: routes, schema, who may."""
