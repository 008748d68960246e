package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// suite is what all tests share. It is set once in TestMain.
var suite struct {
	binary  string // the program, built with the race detector
	clients string // the directory of the npm project
	browser string
	tmp     string // everything that the tests and their processes write is below
}

// setUp tells how to get what is missing.
const setUp = "run `make test`, which installs what the tests need (Debian: redis-server, chromium-headless-shell, nodejs, npm; `npm ci` in e2e/clients)"

// browserPath is where Debian puts the browser itself. The wrapper in /usr/bin would stay
// between us and it.
const browserPath = "/usr/lib/chromium/chromium-headless-shell"

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	tmp, err := os.MkdirTemp("", "wc-e2e-")
	if err == nil {
		err = os.Setenv("TMPDIR", tmp) // for the local ECS endpoint's tasks, too
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	suite.tmp, suite.browser = tmp, browserPath
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	code = m.Run()
	if err := nothingLeft(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: after all tests:", err)
		return 1
	}
	return code
}

// prepare builds the program and looks for everything else.
func prepare() error {
	var missing []error
	for _, program := range []string{"node", "redis-server", suite.browser} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, err)
		}
	}
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	suite.clients = filepath.Join(here, "clients")
	for _, module := range []string{"playwright-core", "puppeteer-core", "chrome-remote-interface"} {
		if _, err := os.Stat(filepath.Join(suite.clients, "node_modules", module, "package.json")); err != nil {
			missing = append(missing, err)
		}
	}
	if err := errors.Join(missing...); err != nil {
		return fmt.Errorf("%w\n%s", err, setUp)
	}
	suite.binary = filepath.Join(suite.tmp, "wallcrawler")
	out, err := exec.Command("go", "build", "-race", "-o", suite.binary, "../cmd/wallcrawler").CombinedOutput()
	if err != nil {
		return fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return nil
}

// nothingLeft tells of processes and files of tasks that have outlived the tests.
func nothingLeft() error {
	var left []string
	poll(10*time.Second, func() bool {
		left = processesOf(suite.tmp)
		for _, pattern := range []string{"ecslocal-*", "wallcrawler*-*", "*/wallcrawler-agent*"} {
			files, _ := filepath.Glob(filepath.Join(suite.tmp, pattern)) // the pattern is good
			left = append(left, files...)
		}
		return len(left) == 0
	})
	if len(left) > 0 {
		return fmt.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	return nil
}
