//! Which endpoint should serve a request, and when.
