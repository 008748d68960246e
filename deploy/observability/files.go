package observability

// Files are the generated files by their paths in the checkout, which is at root.
func Files(root string) (map[string]string, error) {
	logs, err := LogsPage(root)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"deploy/observability/rules.yaml":     RulesFile(),
		"deploy/observability/dashboard.json": Dashboard(),
		"charts/wallcrawler/files/rules.yaml": RulesFile(),
		"docs/metrics.md":                     Page(),
		"docs/logs.md":                        logs,
	}, nil
}
