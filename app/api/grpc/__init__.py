"""The template service over gRPC: `template.v1.TemplateService`, health and reflection on one port."""
