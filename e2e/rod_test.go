package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"github.com/go-rod/rod"
	"github.com/go-rod/rod/lib/proto"
)

// driveRod does with go-rod what the other clients do. Its handshake has a key that is none.
func driveRod(t *testing.T, s *service, site site) {
	created := s.alice.create(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	browser := rod.New().Context(ctx).ControlURL(created.ConnectURL)
	must(browser.Connect())
	open := func(url string) *rod.Page {
		t.Helper()
		page, err := browser.Page(proto.TargetCreateTarget{})
		must(err)
		wait := page.WaitEvent(&proto.PageLoadEventFired{})
		must(page.Navigate(url))
		wait()
		return page
	}
	text := func(page *rod.Page, expression string) string {
		t.Helper()
		value, err := page.Eval("() => " + expression)
		must(err)
		return value.Value.Str()
	}

	page := open(site.url + "/")
	got := tour{Title: text(page, "document.title")}
	button, err := page.Element("#go")
	must(err)
	must(button.Click(proto.InputMouseButtonLeft, 1))
	got.Clicked, got.Label = text(page, "document.title"), text(page, "document.querySelector('#go').textContent")
	must(page.SetViewport(&proto.EmulationSetDeviceMetricsOverride{Width: 640, Height: 360, DeviceScaleFactor: 1}))
	shot, err := page.Screenshot(false, nil)
	must(err)
	wantPNG(t, shot, 640, 360)
	big := text(page, "fetch('/big').then(answer => answer.text())")
	sum := sha256.Sum256([]byte(big))
	got.BigLength, got.BigSum = len(big), hex.EncodeToString(sum[:])

	got.Second = text(open(site.url+"/second"), "document.title")
	targets, err := proto.TargetGetTargets{}.Call(browser)
	must(err)
	for _, target := range targets.TargetInfos {
		if target.Type == proto.TargetTargetInfoTypePage && target.URL != "about:blank" {
			got.Tabs++
		}
	}
	site.wantTour(t, got)
	s.alice.release(t, created.ID)
	s.alice.awaitEnd(t, 10*time.Second, created.ID, "released")
}
