// Command wallcrawler runs remote browsers for other people's programs: the service (serve),
// the container side (agent), all of it on one machine (dev), and a client for people.
//
// This package wires the others together and reads configuration; it decides nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is stamped by the build (-ldflags "-X main.version=…").
var version = ""

// versionText is the stamped version, or what the build knows of its commit.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == serveName {
		relax() // before anybody listens to signals: one that came meanwhile would be lost
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "wallcrawler:", err)
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "wallcrawler",
		Short: "Remote browsers for programs: a control plane and relay for Chromium in containers",
		Long: `WallCrawler runs Chromium in containers and gives each program that asks a browser behind a
URL, to be driven with Playwright, Puppeteer, chromedp or anything that speaks the Chrome
DevTools Protocol.

Begin with "wallcrawler dev": the whole system on this machine.`,
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newDev(), newServe(), newAgent(), newSession(), newContainer(), newTask(),
		newPlan(), newEvents(), newConfig(), newToken(), newHealth(), newVersion())
	return root
}
