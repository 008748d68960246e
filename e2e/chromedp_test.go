package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"
)

// driveChromedp does with chromedp what the other clients do in their scripts.
func driveChromedp(t *testing.T, s *service, site site) {
	created := s.alice.create(t, nil)
	timed, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// As it is: chromedp would ask for a browser at the root of the plain port instead.
	allocated, cancel := remote.NewAllocator(timed, created.ConnectURL, remote.NoModifyURL)
	defer cancel()
	ctx, cancel := chromedp.NewContext(allocated)
	defer cancel()
	tab, closeTab := chromedp.NewContext(ctx)
	defer closeTab()

	do := func(ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatal(err)
		}
	}
	do(ctx, chromedp.EmulateViewport(640, 360), chromedp.Navigate(site.url+"/"))
	got := tour{Title: value(ctx, t, chromedp.Title())}
	do(ctx, chromedp.Click("#go"))
	got.Clicked, got.Label = value(ctx, t, chromedp.Title()), value(ctx, t, chromedp.Text("#go"))
	wantPNG(t, value(ctx, t, chromedp.CaptureScreenshot()), 640, 360)
	wantPDF(t, value(ctx, t, chromedp.PrintToPDF()))
	// As raw JSON: chromedp's own decoding of so much takes its time under the race detector.
	raw := value(ctx, t, chromedp.Evaluate[[]byte]("fetch('/big').then(answer => answer.text())", chromedp.EvalAwaitPromise))
	var big string
	if err := json.Unmarshal(raw, &big); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(big))
	got.BigLength, got.BigSum = len(big), hex.EncodeToString(sum[:])

	do(tab, chromedp.Navigate(site.url+"/second"))
	got.Second = value(tab, t, chromedp.Title())
	targets, err := chromedp.Targets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		if target.Type == "page" && target.URL != "about:blank" {
			got.Tabs++
		}
	}
	site.wantTour(t, got)
	s.alice.release(t, created.ID)
	s.alice.awaitEnd(t, 10*time.Second, created.ID, "released")
}

// value runs an action that gives one.
func value[T any](ctx context.Context, t *testing.T, action chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
