package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/api/auth"
)

// secretSpec says where one secret is: given, or kept in Secrets Manager. Its fields are
// exported because fmt would show those of unexported ones.
type secretSpec struct {
	Name     string // in logs and metrics
	Value    auth.Secret
	Previous auth.Secret
	ARN      string
}

func (s secretSpec) set() bool { return s.Value != "" || s.ARN != "" }

// secretSpecs say what credentials are made of.
type secretSpecs struct {
	JWE, JWT, Container secretSpec

	KeySet string // file or URL; empty: none
	JWKS   auth.JWKSOptions

	Keys           []auth.Key
	KeysARN        string
	ContainerToken auth.Secret

	Manager auth.ManagerOptions
}

// readSecrets checks what the configuration says of secrets. Nothing is fetched.
func readSecrets(c *config) (*secretSpecs, error) {
	jwe, errJWE := c.secret("jwe")
	jwt, errJWT := c.secret("jwt")
	container, errContainer := c.secret("container")
	errs := []error{errJWE, errJWT, errContainer}
	s := &secretSpecs{
		JWE: jwe, JWT: jwt, Container: container,
		KeySet: c.GetString("jwt_jwks"), KeysARN: c.GetString("api_keys_secret_arn"), ContainerToken: auth.Secret(c.GetString("container_token")),
		JWKS:    auth.JWKSOptions{Algorithm: c.GetString("jwt_algorithm"), Issuer: c.GetString("jwt_issuer"), Audience: c.GetString("jwt_audience")},
		Manager: c.managerOptions(),
	}
	errs = append(errs, s.checkTokens()...)
	if s.ContainerToken != "" {
		if _, err := auth.NewSharedToken(s.ContainerToken); err != nil {
			errs = append(errs, fmt.Errorf("CONTAINER_TOKEN: %w", err))
		}
		if len(c.list("container_cidrs")) == 0 {
			errs = append(errs, errors.New("CONTAINER_TOKEN is set without CONTAINER_CIDRS: the token does not tell where its containers may be"))
		}
	}
	var err error
	if s.Keys, err = auth.ParseKeys(c.GetString("api_keys")); err != nil {
		errs = append(errs, fmt.Errorf("API_KEYS: %w", err))
	} else if _, err := auth.NewKeys(s.Keys...); err != nil {
		errs = append(errs, fmt.Errorf("API_KEYS: %w", err))
	} else if len(s.Keys) == 0 && s.KeysARN == "" {
		errs = append(errs, errors.New("neither API_KEYS nor API_KEYS_SECRET_ARN is set: nobody could create sessions"))
	}
	return s, errors.Join(errs...)
}

// secret checks what the configuration says of one secret.
func (c *config) secret(name string) (secretSpec, error) {
	s := secretSpec{
		Name: name, Value: auth.Secret(c.GetString(name + "_secret")),
		Previous: auth.Secret(c.GetString(name + "_secret_previous")), ARN: c.GetString(name + "_secret_arn"),
	}
	env := strings.ToUpper(name) + "_SECRET"
	var errs []error
	switch {
	case s.Value != "" && s.ARN != "":
		errs = append(errs, fmt.Errorf("%s and %s_ARN are both set: give one", env, env))
	case s.Value == "" && s.Previous != "":
		errs = append(errs, fmt.Errorf("%s_PREVIOUS is set without %s: Secrets Manager keeps previous versions itself", env, env))
	}
	for _, one := range []secretSpec{{Name: env, Value: s.Value}, {Name: env + "_PREVIOUS", Value: s.Previous}} {
		if one.Value != "" && len(one.Value) < auth.MinSecret {
			errs = append(errs, fmt.Errorf("%s has %d bytes: use at least %d random ones", one.Name, len(one.Value), auth.MinSecret))
		}
	}
	return s, errors.Join(errs...)
}

// checkTokens tells what is wrong with the choice of session tokens.
func (s *secretSpecs) checkTokens() (errs []error) {
	switch {
	case s.KeySet != "" && s.JWT.set():
		errs = append(errs, errors.New("JWT_JWKS and JWT_SECRET (or JWT_SECRET_ARN) are both set: signed tokens are of one kind"))
	case s.KeySet != "" && !s.JWE.set():
		errs = append(errs, errors.New("JWT_JWKS only checks the tokens of somebody else: set JWE_SECRET or JWE_SECRET_ARN too, of which our own are made"))
	case !s.JWT.set() && !s.JWE.set():
		errs = append(errs, errors.New("none of JWT_SECRET, JWT_SECRET_ARN, JWE_SECRET, JWE_SECRET_ARN is set: session tokens are made of it"))
	}
	if s.KeySet != "" && !slices.Contains(auth.Algorithms(), s.JWKS.Algorithm) {
		errs = append(errs, fmt.Errorf("JWT_ALGORITHM is %q: with JWT_JWKS it must be one of %s", s.JWKS.Algorithm, strings.Join(auth.Algorithms(), ", ")))
	}
	if s.KeySet == "" && (s.JWKS.Algorithm != "" || s.JWKS.Issuer != "") {
		errs = append(errs, errors.New("JWT_ALGORITHM and JWT_ISSUER are for JWT_JWKS, which is not set"))
	}
	if strings.Contains(s.KeySet, "://") {
		if err := auth.CheckKeySetURL(s.KeySet); err != nil {
			errs = append(errs, fmt.Errorf("JWT_JWKS: %w", err))
		}
	}
	return errs
}

func (c *config) managerOptions() auth.ManagerOptions {
	return auth.ManagerOptions{Region: c.GetString("aws_region"), Endpoint: first(c.GetString("secrets_endpoint"), c.GetString("aws_endpoint"))}
}

// containerKeys are the credentials of containers, and those between replicas.
type containerKeys interface {
	api.ContainerKeys
	Token(launch string) string
	PreviousLinkSecrets(container, bootID string) []string
	Ticket(replica, session, user string) (string, error)
	Check(ticket, replica, session string) (user string, err error)
}

// keeper is a part that runs as long as the service and keeps something fresh.
type keeper struct {
	name string
	run  func(ctx context.Context) error
}

// credentials are what the service knows people and containers by.
type credentials struct {
	tokens     api.Tokens
	keys       api.Keys
	containers containerKeys
	shared     *auth.SharedToken // nil: none
	keepers    []keeper
}

// open waits for the secrets that are kept elsewhere and makes credentials of all of them.
func (s *secretSpecs) open(ctx context.Context, reg prometheus.Registerer, log *slog.Logger) (*credentials, error) {
	o, err := s.opener(ctx, reg, log)
	if err != nil {
		return nil, err
	}
	if err := o.sessionTokens(ctx, s); err != nil {
		return nil, err
	}
	if err := o.apiKeys(ctx, s); err != nil {
		return nil, err
	}
	// The keys of containers are derived under labels of their own: no token of a client is
	// ever one of a container, also where one secret serves both.
	spec := s.Container
	for _, other := range []secretSpec{s.JWT, s.JWE} {
		if !spec.set() {
			spec = other
		}
	}
	spec.Name = "container"
	containers, err := auth.OpenContainerKeys(ctx, o.config(spec))
	if err != nil {
		return nil, err
	}
	o.out.containers = containers
	o.keep(spec, containers.Run)
	if s.ContainerToken != "" {
		if o.out.shared, err = auth.NewSharedToken(s.ContainerToken); err != nil {
			return nil, err
		}
	}
	return o.out, nil
}

// opener makes credentials of secrets, one after the other.
type opener struct {
	out     *credentials
	manager *auth.Manager // nil: no secret is in Secrets Manager
	log     *slog.Logger
	metrics *auth.Metrics
}

func (s *secretSpecs) opener(ctx context.Context, reg prometheus.Registerer, log *slog.Logger) (*opener, error) {
	metrics, err := auth.NewMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("registering the metrics of credentials: %w", err)
	}
	o := &opener{out: &credentials{}, log: log, metrics: metrics}
	if first(s.JWE.ARN, s.JWT.ARN, s.Container.ARN, s.KeysARN) == "" {
		return o, nil
	}
	if o.manager, err = auth.NewManager(ctx, s.Manager); err != nil {
		return nil, fmt.Errorf("making the client of Secrets Manager: %w", err)
	}
	return o, nil
}

func (o *opener) config(s secretSpec) auth.SecretConfig {
	source := auth.Fixed(s.Value, s.Previous)
	if s.ARN != "" {
		source = o.manager.Source(s.ARN)
	}
	return auth.SecretConfig{Name: s.Name, Source: source, Log: o.log, Metrics: o.metrics}
}

// keep has a secret that may change read again while the service runs.
func (o *opener) keep(s secretSpec, run func(context.Context) error) {
	if s.ARN != "" {
		o.out.keepers = append(o.out.keepers, keeper{"secret " + s.Name, run})
	}
}

// sessionTokens opens the kinds of token that are configured. Ours are encrypted if they can
// be, so that the original's proxies and programs read them.
func (o *opener) sessionTokens(ctx context.Context, s *secretSpecs) error {
	gate := &auth.Gate{Metrics: o.metrics}
	if s.JWT.set() {
		tokens, err := auth.OpenTokens(ctx, o.config(s.JWT))
		if err != nil {
			return err
		}
		gate.Signed, gate.Minter = tokens, tokens
		o.keep(s.JWT, tokens.Run)
	}
	if s.JWE.set() {
		tokens, err := auth.OpenJWE(ctx, o.config(s.JWE))
		if err != nil {
			return err
		}
		gate.Encrypted, gate.Minter = tokens, tokens
		o.keep(s.JWE, tokens.Run)
	}
	if s.KeySet != "" {
		cfg := auth.SecretConfig{Name: "jwks", Source: auth.KeySetFile(s.KeySet), Log: o.log, Metrics: o.metrics}
		if strings.Contains(s.KeySet, "://") {
			cfg.Source = auth.KeySetURL(s.KeySet)
		}
		keys, err := auth.OpenJWKS(ctx, cfg, s.JWKS)
		if err != nil {
			return err
		}
		gate.Signed = keys
		o.out.keepers = append(o.out.keepers, keeper{"key set", keys.Run})
	}
	o.out.tokens = gate
	return nil
}

func (o *opener) apiKeys(ctx context.Context, s *secretSpecs) error {
	if s.KeysARN == "" {
		keys, err := auth.NewKeys(s.Keys...)
		o.out.keys = keys
		return err
	}
	spec := secretSpec{Name: "api_keys", ARN: s.KeysARN}
	keys, err := auth.OpenKeys(ctx, o.config(spec), s.Keys...)
	if err != nil {
		return err
	}
	o.out.keys = keys
	o.keep(spec, keys.Run)
	return nil
}
