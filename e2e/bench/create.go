//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// dev is a running `wallcrawler dev`.
type dev struct {
	*stage.Process
	api   stage.Caller
	flags string
	warm  int
}

// startDev starts one and waits until its container is up and its warm browsers are there.
func (b *bench) startDev(ctx context.Context, slots, warm int) (*dev, error) {
	port, err := stage.FreePort()
	if err != nil {
		return nil, err
	}
	const key = "bench-key-of-one-run"
	addr := "127.0.0.1:" + strconv.Itoa(port)
	d := &dev{api: stage.NewCaller("http://"+addr, key), warm: warm,
		flags: fmt.Sprintf("--containers 1 --sessions-per-container %d --warm %d", slots, warm)}
	home := filepath.Join(b.Tmp, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	// What the user remembers of a dev of their own stays as it is: HOME is another.
	d.Process, err = b.Start(stage.Program{Name: "wallcrawler dev", Path: b.Binary,
		Args: []string{"dev", "--listen", addr, "--api-key", key, "--browser", b.browser, "--log-level", "error",
			"--containers", "1", "--sessions-per-container", strconv.Itoa(slots), "--warm", strconv.Itoa(warm)},
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + b.Tmp}})
	if err != nil {
		return nil, err
	}
	if err := d.releaseGreeting(ctx); err != nil {
		d.Stop(syscall.SIGINT)
		return nil, err
	}
	return d, nil
}

// releaseGreeting ends the session that dev creates for its user, so that only the bench's own
// are there.
func (d *dev) releaseGreeting(ctx context.Context) error {
	var all []stage.Session
	err := d.Until(ctx, 60*time.Second, "the first browser is there", func() error {
		if err := d.api.Do(ctx, "GET", "/v1/sessions", nil, &all); err != nil {
			return err
		}
		if len(all) == 0 || all[0].Phase != "ready" {
			return stage.ErrNotYet
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := d.api.Release(ctx, s.ID); err != nil {
			return err
		}
	}
	return d.refill(ctx)
}

// refill waits until everything that is put off is done.
func (d *dev) refill(ctx context.Context) error {
	return d.Until(ctx, 60*time.Second, "browsers are warm", func() error { return refilled(ctx, d.api, d.warm) })
}

// create measures from POST /v1/sessions to the first answer of the browser.
func create(ctx context.Context, b *bench) error {
	b.title("Session: POST /v1/sessions → 101 on connectUrl → Browser.getVersion answered")
	rows := [][]string{timesHead()}
	var notes []string
	for _, of := range []struct {
		what, goal string
		warm, n    int
	}{
		{"warm", "p50 ≤ 30, p99 ≤ 105", 1, b.count(200)},
		{"cold, container up", "p50 ≤ 1500", 0, b.count(20)},
	} {
		total, posted, note, err := b.createMany(ctx, of.warm, of.n)
		if err != nil {
			return err
		}
		rows = append(rows, timesRow(of.what, total, of.goal), timesRow(of.what+": POST answered", posted, ""))
		notes = append(notes, note)
	}
	table(b.out, rows)
	for _, note := range notes {
		fmt.Fprintf(b.out, "\n%s\n", note)
	}
	return nil
}

// createMany creates sessions one after the other, each after the last has ended and the warm
// browsers are refilled.
func (b *bench) createMany(ctx context.Context, warm, n int) (total, posted sample, note string, err error) {
	d, err := b.startDev(ctx, 4, warm)
	if err != nil {
		return nil, nil, "", err
	}
	defer d.Stop(syscall.SIGINT)
	const ignored = 3 // connections and code paths used for the first time
	warmBefore, coldBefore, err := starts(ctx, d.api)
	if err != nil {
		return nil, nil, "", err
	}
	for i := range n + ignored {
		if err := d.refill(ctx); err != nil {
			return nil, nil, "", err
		}
		begin := time.Now()
		s, err := d.api.Create(ctx)
		if err != nil {
			return nil, nil, "", err
		}
		answered := time.Since(begin)
		conn, err := connect(ctx, s.ConnectURL)
		if err != nil {
			return nil, nil, "", err
		}
		if i >= ignored {
			total, posted = append(total, time.Since(begin)), append(posted, answered)
		}
		leave(conn)
		if err := d.api.Release(ctx, s.ID); err != nil {
			return nil, nil, "", err
		}
		if err := d.Until(ctx, 20*time.Second, "the session has ended", func() error { return d.api.Ended(ctx, s.ID) }); err != nil {
			return nil, nil, "", err
		}
	}
	warmAfter, coldAfter, err := starts(ctx, d.api)
	note = fmt.Sprintf("`dev %s`: %d browsers came warm and %d cold. One after the other; the next begins when the last has ended and %d browsers are warm.",
		d.flags, warmAfter-warmBefore, coldAfter-coldBefore, warm)
	return total, posted, note, err
}
