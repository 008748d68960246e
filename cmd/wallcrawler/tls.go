package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

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
