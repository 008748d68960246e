package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

// bigSize is how much the site's big answer has, in bytes.
const bigSize = 50_000_000

// site is what browsers are sent to.
type site struct {
	url    string
	bigSum string // SHA-256 of the big answer, hexadecimal
}

func startSite(t *testing.T) site {
	t.Helper()
	line := []byte("0123456789 abcdefghijklmnopqrstuvwxyz \"quoted\" \\ and more.\n")
	big := bytes.Repeat(line, bigSize/len(line)+1)[:bigSize]
	sum := sha256.Sum256(big)
	sendBig := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", strconv.Itoa(len(big)))
		_, _ = w.Write(big) // a browser that went away needs no answer
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		servePage(w, "first", `<button id="go" onclick="document.title='clicked'; this.textContent='done'">go</button> <a href="/second">next</a>`)
	})
	mux.HandleFunc("GET /second", func(w http.ResponseWriter, _ *http.Request) { servePage(w, "second", "<p>the second page</p>") })
	mux.HandleFunc("GET /big", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		sendBig(w)
	})
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", `attachment; filename="big.bin"`)
		sendBig(w)
	})
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "who", Value: r.URL.Query().Get("who"), Path: "/", HttpOnly: true})
		servePage(w, "logged in", "")
	})
	mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) {
		who := "nobody"
		if c, err := r.Cookie("who"); err == nil {
			who = c.Value
		}
		servePage(w, "who", `<p id="who">`+who+`</p>`)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return site{url: server.URL, bigSum: hex.EncodeToString(sum[:])}
}

func servePage(w http.ResponseWriter, title, body string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html><title>%s</title><link rel="icon" href="data:,"><body>%s</body>`, title, body)
}
