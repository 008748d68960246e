package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned makes a certificate with a number, and its key.
func selfSigned(t *testing.T, number int64) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(number), DNSNames: []string{"wallcrawler.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func TestACertificateIsReadAnewAndTheLastGoodOneKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	firstCert, firstKey := selfSigned(t, 1)
	secondCert, secondKey := selfSigned(t, 2)
	thirdCert, thirdKey := selfSigned(t, 3)
	write(t, certFile, firstCert)
	write(t, keyFile, firstKey)
	c, err := readCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cfg := c.config(slog.New(slog.NewTextHandler(&log, nil)))
	c.every = 0
	step := func(what string, number int64, told string) {
		t.Helper()
		for range 3 { // however often it is asked, it tells once
			shown, err := cfg.GetCertificate(nil)
			if err != nil || shown.Leaf.SerialNumber.Int64() != number {
				t.Fatalf("%s: it is %v, %v, want number %d", what, shown.Leaf.SerialNumber, err, number)
			}
		}
		if got := strings.Count(log.String(), "\n"); told == "" && got != 0 || told != "" && (got != 1 || !strings.Contains(log.String(), told)) {
			t.Errorf("%s: it was logged: %s, want %q", what, log.String(), told)
		}
		log.Reset()
	}
	const bad, good = "level=ERROR msg=\"new TLS certificate not usable", "TLS certificate read anew"
	step("at first", 1, "")
	write(t, certFile, secondCert)
	step("a certificate without its key", 1, bad)
	write(t, keyFile, secondKey)
	step("with its key", 2, good)
	write(t, keyFile, "nonsense "+thirdKey)
	write(t, certFile, "nonsense")
	step("nonsense", 2, bad)
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	step("no file", 2, bad)
	write(t, certFile, secondCert)
	write(t, keyFile, secondKey)
	step("the old one again", 2, good)
	write(t, certFile, thirdCert)
	write(t, keyFile, thirdKey)
	step("another", 3, good)
	c.every = time.Hour
	write(t, certFile, firstCert)
	write(t, keyFile, firstKey)
	step("too soon to look", 3, "")
	if strings.Contains(log.String(), "PRIVATE") {
		t.Error("a key was logged")
	}
}
