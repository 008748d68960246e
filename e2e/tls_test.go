package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, key := a.sign(t, form)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key, a.pem = key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a.pool.AddCert(a.cert)
	return a
}

// sign makes a certificate and its key; the first one is the authority's own.
func (a *authority) sign(t *testing.T, form *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = form, key
	}
	der, err := x509.CreateCertificate(rand.Reader, form, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// issue writes a certificate for a name and its key.
func (a *authority) issue(t *testing.T, number int64, name, certFile, keyFile string) {
	t.Helper()
	der, key := a.sign(t, &x509.Certificate{SerialNumber: big.NewInt(number), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)})
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	writeFile(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func writeFile(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// number is that of the certificate which a server shows for a name.
func (a *authority) number(addr, name string) (int64, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, &tls.Config{RootCAs: a.pool, ServerName: name})
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

// Clients and containers are spoken to by TLS, and certificates are renewed under them.
func TestTLSOnBothSidesAndRenewedCertificates(t *testing.T) {
	const ours, theirs = "wallcrawler.test", "browsers.wallcrawler.test"
	a, dir := newAuthority(t), t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name+".pem") }
	writeFile(t, file("ca"), a.pem)
	a.issue(t, 10, ours, file("service"), file("service-key"))
	a.issue(t, 20, theirs, file("agent"), file("agent-key"))
	port := freePort(t)
	s := startService(t, serviceOptions{
		env: map[string]string{"TLS_PORT": strconv.Itoa(port), "TLS_CERT_FILE": file("service"), "TLS_KEY_FILE": file("service-key"),
			"CONTAINER_TLS_NAME": theirs, "CONTAINER_TLS_CA_FILE": file("ca")},
		agentEnv: []string{"AGENT_TLS_CERT_FILE=" + file("agent"), "AGENT_TLS_KEY_FILE=" + file("agent-key")},
	})
	created := s.alice.create(t, map[string]any{"keepAlive": true})
	c := dialCDP(t, created.ConnectURL)
	c.alive(t)

	secure := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	host := s.containerOf(t, created.ID).Addr
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	listener := net.JoinHostPort(host, s.env["CONTAINER_PORT"])
	if resp, err := (&http.Client{Timeout: 10 * time.Second}).Get("http://" + listener + "/health"); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("the agent answers in the clear: %s", resp.Status)
		}
	}
	shows := func(addr, name string, want int64) {
		t.Helper()
		eventually(t, 60*time.Second, fmt.Sprintf("%s shows certificate %d", name, want), func() error {
			got, err := a.number(addr, name)
			if err == nil && got != want {
				err = fmt.Errorf("it shows %d", got)
			}
			return err
		})
	}
	shows(secure, ours, 10)
	shows(listener, theirs, 20)
	a.issue(t, 11, ours, file("service"), file("service-key"))
	a.issue(t, 21, theirs, file("agent"), file("agent-key"))
	shows(secure, ours, 11)
	shows(listener, theirs, 21)

	writeFile(t, file("service"), []byte("nonsense"))
	writeFile(t, file("agent"), []byte("nonsense"))
	const complaint = "new TLS certificate not usable"
	eventually(t, 60*time.Second, "both have complained", func() error {
		for addr, name := range map[string]string{secure: ours, listener: theirs} {
			if got, err := a.number(addr, name); err != nil || got != 11 && got != 21 {
				t.Fatalf("%s shows %d: %v", name, got, err)
			}
		}
		if !s.process.stderr.contains(complaint) || !s.tasks.contains(complaint) {
			return fmt.Errorf("service: %t, agent: %t", s.process.stderr.contains(complaint), s.tasks.contains(complaint))
		}
		return nil
	})
	c.alive(t) // through all of it
	dialCDP(t, created.ConnectURL).alive(t)
}
