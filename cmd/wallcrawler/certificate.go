package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateCheck is how often the files are looked at, at most: at a handshake.
const certificateCheck = time.Second

// certificate is what a listener shows its clients. It is read anew when its files have changed:
// those who renew certificates need not restart anything. What cannot be used is not taken up.
type certificate struct {
	files [2]string // certificate and key
	every time.Duration
	log   *slog.Logger // set by config

	mu     sync.Mutex // guards the following
	pair   *tls.Certificate
	seen   [2][]byte // what was read last, good or bad
	failed string    // what was complained of last, while nothing could be read
	looked time.Time
}

// readCertificate reads a certificate and its key. Without files there is none: nil.
func readCertificate(certFile, keyFile string) (*certificate, error) {
	if certFile == "" && keyFile == "" {
		return nil, nil //nolint:nilnil // said above
	}
	if certFile == "" || keyFile == "" {
		return nil, errors.New("a TLS certificate and its key belong together: one of TLS_CERT_FILE and TLS_KEY_FILE (an agent's begin with AGENT_) is not set")
	}
	c := &certificate{files: [2]string{certFile, keyFile}, every: certificateCheck}
	texts, err := c.read()
	if err == nil {
		err = c.take(texts)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the TLS certificate: %w", err)
	}
	return c, nil
}

// config is a server's; nil without a certificate. It must be called once.
func (c *certificate) config(log *slog.Logger) *tls.Config {
	if c == nil {
		return nil
	}
	c.log = log
	// Only HTTP/1.1 has the upgrade that clients use.
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil }}
}

// current is the certificate, after a look at whether there is another.
func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.looked) < c.every {
		return c.pair
	}
	c.looked = now
	texts, err := c.read()
	switch {
	case err != nil && err.Error() == c.failed:
		return c.pair // it was told
	case err != nil:
		c.failed = err.Error()
	case bytes.Equal(texts[0], c.seen[0]) && bytes.Equal(texts[1], c.seen[1]):
		c.failed = ""
		return c.pair
	default:
		c.failed = ""
		err = c.take(texts)
	}
	if err != nil {
		c.log.Error("new TLS certificate not usable, keeping the last one", "file", c.files[0], "key", c.files[1], "error", err)
		return c.pair
	}
	c.log.Info("TLS certificate read anew", "file", c.files[0], "until", c.pair.Leaf.NotAfter)
	return c.pair
}

// read reads both files.
func (c *certificate) read() (texts [2][]byte, err error) {
	for i, file := range c.files {
		if texts[i], err = os.ReadFile(file); err != nil {
			return texts, err
		}
	}
	return texts, nil
}

// take takes a certificate up if it is one.
func (c *certificate) take(texts [2][]byte) error {
	c.seen = texts
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err == nil {
		c.pair = &pair
	}
	return err
}
