"""The page that people read: reference, Try It, samples and recent requests, made from the API's description."""
