# Validates JSON, a document a line or one in all, against a schema of docs/. Exit status 77: there is no validator.
import json
import sys

try:
    import jsonschema
except ImportError:
    sys.exit(77)

with open(sys.argv[1]) as file:
    schema = json.load(file)
jsonschema.Draft7Validator.check_schema(schema)
with open(sys.argv[2]) as file:
    jsonschema.validate(json.load(file), schema)
