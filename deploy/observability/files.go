package observability

// Files are the generated files by their paths in the checkout.
func Files() map[string]string {
	return map[string]string{
		"deploy/observability/rules.yaml":     RulesFile(),
		"deploy/observability/dashboard.json": Dashboard(),
		"charts/wallcrawler/files/rules.yaml": RulesFile(),
		"docs/metrics.md":                     Page(),
	}
}
