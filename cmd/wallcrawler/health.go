package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// newHealth is for where there is no curl: containers' health checks and the chart's test.
func newHealth() *cobra.Command {
	var server string
	var alive bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a service whether it takes work, and say so by the exit status",
		Long: `Ask a service's /ready (or, with --alive, /health) and print the answer. The status is 0 when it
says yes. It needs no API key.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			base := strings.TrimRight(first(server, os.Getenv("WALLCRAWLER_SERVER"), "http://127.0.0.1:"+first(os.Getenv(envPrefix+"PORT"), os.Getenv("PORT"), "8080")), "/")
			path := "/ready"
			if alive {
				path = "/health"
			}
			req, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, base+path, nil)
			if err != nil {
				return fmt.Errorf("making the request: %w", err)
			}
			resp, err := (&http.Client{Timeout: 5 * time.Second}).Do(req)
			if err != nil {
				return fmt.Errorf("asking %s: %w: is the service running?", base, err)
			}
			defer func() { _ = resp.Body.Close() }()
			text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
			if err != nil {
				return fmt.Errorf("reading the answer: %w", err)
			}
			if resp.StatusCode != http.StatusOK {
				return refused(resp.StatusCode, text)
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&server, "server", "", "the service (default $WALLCRAWLER_SERVER, else this machine's at $PORT)")
	cmd.Flags().BoolVar(&alive, "alive", false, "ask only whether the process lives")
	return cmd
}

// newVersion prints what was built, for people and for release scripts.
func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{
					"version": versionText(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "wallcrawler %s %s %s/%s\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
