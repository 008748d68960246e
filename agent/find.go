package agent

// FindBrowser gives the executable that an agent would start: the named one, else the first
// that is found. Its error says how to get one.
func FindBrowser(named string) (string, error) { return findBrowser(named) }
