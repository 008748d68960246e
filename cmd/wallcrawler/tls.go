package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// serverTLS reads a certificate and its key. Without files there is no TLS: nil.
func serverTLS(certFile, keyFile string) (*tls.Config, error) {
	if certFile == "" && keyFile == "" {
		return nil, nil //nolint:nilnil // said above
	}
	if certFile == "" || keyFile == "" {
		return nil, errors.New("a TLS certificate and its key belong together: one of TLS_CERT_FILE and TLS_KEY_FILE (an agent's begin with AGENT_) is not set")
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the TLS certificate: %w", err)
	}
	// Only HTTP/1.1 has the upgrade that clients use.
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}, nil
}

// containerTLS is how containers are spoken to: nil: in the clear.
func containerTLS(name, caFile string) (*tls.Config, error) {
	if name == "" {
		if caFile != "" {
			return nil, errors.New("CONTAINER_TLS_CA_FILE is set, and CONTAINER_TLS_NAME is not: it names what the containers' certificate must be good for")
		}
		return nil, nil //nolint:nilnil // said above
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, NextProtos: []string{"http/1.1"}}
	if caFile == "" {
		return cfg, nil // the system's authorities
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("CONTAINER_TLS_CA_FILE: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("CONTAINER_TLS_CA_FILE: there is no certificate in %s", caFile)
	}
	return cfg, nil
}
