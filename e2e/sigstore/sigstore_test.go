// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/sigstore/fulcio/pkg/ca"
	"github.com/sigstore/fulcio/pkg/ca/ephemeralca"
	"github.com/sigstore/fulcio/pkg/config"
	"github.com/sigstore/fulcio/pkg/generated/protobuf"
	"github.com/sigstore/fulcio/pkg/identity"
	fulcio "github.com/sigstore/fulcio/pkg/server"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	tsa "github.com/sigstore/timestamp-authority/v2/pkg/server"
	"github.com/spf13/viper"
	"google.golang.org/grpc/metadata"

	"github.com/kubernetes-sigs/blixt/operator/release/publish"
)

// issuer vouches for identities, as GitHub does for its workflows.
type issuer struct {
	url string
	key *ecdsa.PrivateKey
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	i := &issuer{key: key}
	answers := http.NewServeMux()
	answer := func(path string, value any) {
		answers.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(value)
		})
	}
	server := httptest.NewServer(answers)
	t.Cleanup(server.Close)
	i.url = server.URL
	answer("/.well-known/openid-configuration", map[string]any{
		"issuer": i.url, "jwks_uri": i.url + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"},
	})
	answer("/keys", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	return i
}

const repository = "example/blixt"

// workflow is who signs, as in the certificate.
func workflow(file string) string {
	return "https://github.com/" + repository + "/.github/workflows/" + file + "@refs/tags/v1.2.3"
}

// token writes a token that the issuer gives to a workflow's run.
func (i *issuer) token(t *testing.T, identity string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: "1"}}, nil)
	check(t, err)
	ref := strings.TrimPrefix(identity, "https://github.com/")
	sha := strings.Repeat("c0", 20)
	text, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: i.url, Subject: "repo:" + repository + ":ref:refs/tags/v1.2.3", Audience: jwt.Audience{"sigstore"},
		IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}).Claims(map[string]any{
		"job_workflow_ref": ref, "job_workflow_sha": sha, "workflow_ref": ref, "workflow_sha": sha, "sha": sha,
		"event_name": "push", "repository": repository, "workflow": "release", "ref": "refs/tags/v1.2.3",
		"runner_environment": "github-hosted", "repository_id": "1", "repository_owner": "example", "repository_owner_id": "1",
		"repository_visibility": "public", "run_id": "1", "run_attempt": "1",
	}).Serialize()
	check(t, err)
	return file(t, "token", []byte(text))
}

// authority is a CA that gives certificates of a lifetime.
type authority struct {
	*ephemeralca.EphemeralCA
	lifetime time.Duration
}

// CreateCertificate does what the CA within does, with another lifetime.
func (a *authority) CreateCertificate(ctx context.Context, who identity.Principal, key crypto.PublicKey) (*ca.CodeSigningCertificate, error) {
	certificate, err := ca.MakeX509(ctx, who, key)
	if err != nil {
		return nil, err
	}
	certificate.NotAfter = certificate.NotBefore.Add(a.lifetime)
	chain, signer := a.GetSignerWithChain()
	der, err := x509.CreateCertificate(rand.Reader, certificate, chain[0], key, signer)
	if err != nil {
		return nil, err
	}
	return ca.CreateCSCFromDER(der, chain)
}

// startFulcio starts a Fulcio that believes issuers, and returns its address and its CA.
func startFulcio(t *testing.T, lifetime time.Duration, issuers ...*issuer) (url, root string) {
	t.Helper()
	within, err := ephemeralca.NewEphemeralCA()
	check(t, err)
	all := map[string]any{}
	for _, i := range issuers {
		all[i.url] = map[string]any{"IssuerURL": i.url, "ClientID": "sigstore", "Type": config.IssuerTypeGithubWorkflow}
	}
	text, err := json.Marshal(map[string]any{"OIDCIssuers": all})
	check(t, err)
	c, err := config.Read(text)
	check(t, err)
	registry, err := signature.NewAlgorithmRegistryConfig([]commonpb.PublicKeyDetails{commonpb.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256})
	check(t, err)
	mux := runtime.NewServeMux(runtime.WithMetadata(func(_ context.Context, q *http.Request) metadata.MD {
		token, _ := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
		return metadata.Pairs(fulcio.MetadataOIDCTokenKey, token)
	}))
	check(t, protobuf.RegisterCAHandlerServer(t.Context(), mux,
		fulcio.NewGRPCCAServer(nil, &authority{within, lifetime}, registry, fulcio.NewIssuerPool(c))))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		mux.ServeHTTP(w, q.WithContext(config.With(q.Context(), c)))
	}))
	t.Cleanup(server.Close)
	chain, _ := within.GetSignerWithChain()
	pem, err := cryptoutils.MarshalCertificatesToPEM(chain)
	check(t, err)
	return server.URL, file(t, "fulcio.pem", pem)
}

// startTSA starts a time stamp authority, and returns its address and its certificates.
func startTSA(t *testing.T) (url, chain string) {
	t.Helper()
	for name, value := range map[string]any{
		"max-request-body-size": 1 << 20, "timestamp-signer": "memory", "timestamp-signer-hash": "sha256",
		"accepted-policy-oids": []string{"1.3.6.1.4.1.57264.2"}, "default-policy-oid": "1.3.6.1.4.1.57264.2",
	} {
		viper.Set(name, value)
	}
	server := httptest.NewServer(tsa.NewRestAPIServer("localhost", 0, []string{"http"}, false, time.Minute, time.Minute).GetHandler())
	t.Cleanup(server.Close)
	answer, err := http.Get(server.URL + "/api/v1/timestamp/certchain")
	check(t, err)
	defer answer.Body.Close()
	pem, err := io.ReadAll(answer.Body)
	check(t, err)
	return server.URL + "/api/v1/timestamp", file(t, "tsa.pem", pem)
}

// sigstore is a Sigstore as cosign is told of it.
type sigstore struct {
	config, root string
}

// start starts one. Its certificates live so long.
func start(t *testing.T, lifetime time.Duration, stamps bool, issuers ...*issuer) sigstore {
	t.Helper()
	const since = "2026-01-01T00:00:00Z"
	fulcio, fulcioRoot := startFulcio(t, lifetime, issuers...)
	s := sigstore{config: filepath.Join(t.TempDir(), "signing-config.json"), root: filepath.Join(t.TempDir(), "trusted-root.json")}
	signing := []string{"signing-config", "create", "--out=" + s.config,
		"--fulcio=url=" + fulcio + ",api-version=1,start-time=" + since + ",operator=test"}
	trusted := []string{"trusted-root", "create", "--out=" + s.root,
		"--fulcio=url=" + fulcio + ",certificate-chain=" + fulcioRoot}
	if stamps {
		tsa, chain := startTSA(t)
		signing = append(signing, "--tsa-config=ANY", "--tsa=url="+tsa+",api-version=1,start-time="+since+",operator=test")
		trusted = append(trusted, "--tsa=url="+tsa+",certificate-chain="+chain)
	}
	mustCosign(t, signing...)
	mustCosign(t, trusted...)
	return s
}

func (s sigstore) signer(t *testing.T, i *issuer, identity string) *publish.Keyless {
	t.Helper()
	return &publish.Keyless{
		Program: program(t), Identity: identity, Issuer: i.url, Token: i.token(t, identity),
		SigningConfig: s.config, TrustedRoot: s.root, NoLog: true,
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	check(t, os.WriteFile(path, content, 0o600))
	return path
}
