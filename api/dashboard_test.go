package api_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/state"
)

// browser finds a Chromium, or skips the test.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium-headless-shell", "/usr/lib/chromium/chromium-headless-shell", "chromium", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no Chromium found: make setup installs one")
	return ""
}

func TestDashboardInABrowser(t *testing.T) {
	path := browser(t)
	h := newHouse(t, func(c *api.Config) {
		c.Tasks = func(context.Context) (any, error) {
			return []state.Task{{ARN: "arn:aws:ecs:us-east-1:000000000000:task/wallcrawler/0a1b2c3d4e5f", ContainerID: "cnt_lead",
				LastStatus: "RUNNING", DesiredStatus: "RUNNING", Addr: "127.0.0.9", StartedAt: time.Now().Add(-5 * time.Minute)}}, nil
		}
		c.Plan = func(context.Context, func(string) bool) (any, error) {
			return map[string]any{"leader": true, "actions": []map[string]string{{"action": "launch", "why": "3 sessions wait and no container has room for them"}}}, nil
		}
	})
	h.container("cnt_lead", 4)
	h.container("cnt_other", 4)
	for range 3 {
		h.serve(h.create("")["id"].(string), false)
	}
	ended, pending := h.create("")["id"].(string), h.create("")["id"].(string)
	for _, id := range []string{ended, pending} {
		_, err := h.admit(id)
		must(t, err)
	}
	h.end(ended, state.BrowserCrashed)
	victim := ""
	for _, s := range h.mirror.Sessions() {
		if s.Phase == state.Ready {
			victim = s.ID
		}
	}

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 1000))
	allocated, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	defer cancel()
	var mu sync.Mutex // guards complaints
	var complaints []string
	tab, cancel := chromedp.NewContext(allocated, chromedp.WithListener(func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			complaints = append(complaints, e.ExceptionDetails.Text)
		case *log.EventEntryAdded: // also what the page's policy blocks
			complaints = append(complaints, e.Entry.Text+" "+e.Entry.URL)
		}
	}))
	defer cancel()
	ctx, cancel := context.WithTimeout(tab, time.Minute)
	defer cancel()

	must(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	_, err := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	must(t, err)
	must(t, chromedp.Do(ctx, chromedp.Navigate(h.http.URL+"/")))
	before, err := chromedp.Run(ctx, chromedp.Text("#sessions"))
	must(t, err)
	must(t, chromedp.Do(ctx, chromedp.SendKeys("#key", aliceKey), chromedp.Click("#keyform button"), chromedp.WaitVisible("#sessions table")))
	text, err := chromedp.Run(ctx, chromedp.Text("main"))
	must(t, err)
	stored, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		`JSON.stringify([localStorage.length, document.cookie, getComputedStyle(document.querySelector(".tile")).borderTopLeftRadius])`))
	must(t, err)
	shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	must(t, err)
	if strings.Contains(before, "ses_") {
		t.Errorf("sessions without a key: %q", before)
	}
	for _, want := range []string{ended, pending, victim, "browser_crashed", "cnt_lead", "3 of 4", "0 of 4", "RUNNING", "PENDING", "ERROR", "arn:aws:ecs", "launch", "3 sessions wait"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page shows nothing of %q:\n%s", want, text)
		}
	}
	if stored != `[0,"","10px"]` {
		t.Errorf("stored, or not styled: %s", stored)
	}
	if file := os.Getenv("WALLCRAWLER_TEST_SCREENSHOT"); file != "" {
		must(t, os.WriteFile(file, shot, 0o600))
	}

	// The End button ends a session.
	_, err = chromedp.Run(ctx, chromedp.Evaluate[string](
		`(() => { [...document.querySelectorAll("#sessions tr")].find((r) => r.textContent.includes("`+victim+`")).querySelector("button").click(); return ""; })()`))
	must(t, err)
	h.until("the session's end is asked for", func() bool {
		doc, err := h.store.Document(t.Context(), victim)
		return err == nil && doc.Spec.Final()
	})

	mu.Lock()
	defer mu.Unlock()
	if len(complaints) != 0 {
		t.Errorf("the browser complains: %v", complaints)
	}
}

func TestDashboardHoldsNothingFromElsewhere(t *testing.T) {
	h := newHouse(t)
	answer := h.call("GET", "/", "")
	if answer.status != http.StatusOK || !strings.HasPrefix(answer.header.Get("Content-Type"), "text/html") {
		t.Fatalf("%d %v", answer.status, answer.header)
	}
	page := string(answer.body)
	for _, foreign := range []string{"http://", "https://", "//cdn", "innerHTML", "document.write", "eval("} {
		if strings.Contains(page, foreign) {
			t.Errorf("the page holds %s", foreign)
		}
	}
	if strings.Count(page, "<script") != 1 || strings.Count(page, "<style") != 1 || strings.Contains(page, " style=") || strings.Contains(page, " onclick=") {
		t.Error("the policy allows one script and one style, and nothing inline")
	}
	if policy := answer.header.Get("Content-Security-Policy"); strings.Count(policy, "sha256-") != 2 {
		t.Errorf("policy %q", policy)
	}
}
