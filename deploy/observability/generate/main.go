// Command generate writes the files that deploy/observability makes, below the directory given.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/wallcrawler/wallcrawler/deploy/observability"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "generate: give the root of the checkout")
		os.Exit(2)
	}
	files, err := observability.Files(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(os.Args[1], name), []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "generate:", err)
			os.Exit(1)
		}
	}
}
