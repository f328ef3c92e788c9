"""A pipeline's YAML file, read and checked on this machine as the API server would check it.

The checks come from the CRD itself (schema, defaults, CEL rules), never from a second list of rules: what passes here
passes `kubectl apply`, and a rule added to the CRD is enforced here the same day.
"""
