// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// RegistryError says what a registry, or the way to it, refused.
type RegistryError struct {
	// Ref is the image that was asked for.
	Ref string
	// Problem in a few words, and Fix, the remedy.
	Problem, Fix string
	// Altered: what the registry sent does not have the digest.
	Altered bool
	Err     error
}

func (e *RegistryError) Error() string {
	return fmt.Sprintf("%s: %s (%v): %s", e.Ref, e.Problem, e.Err, e.Fix)
}

func (e *RegistryError) Unwrap() error { return e.Err }

// explain turns an error of a registry into a RegistryError, if it is a known one.
func explain(ref name.Reference, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*RegistryError](err); ok {
		return err
	}
	host := ref.Context().RegistryStr()
	e := &RegistryError{Ref: ref.Name(), Err: err}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var answer *transport.Error
	var dns *net.DNSError
	var dial *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &certificate):
		e.Err = certificate.Err
		e.Problem = "the certificate of " + host + " is not trusted"
		e.Fix = "name the registry as its certificate does, and give the file of its CA with --ca-file, or add it to the system's"
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		e.Err = errPlainHTTP
		e.Problem = host + " does not speak HTTPS"
		e.Fix = "bpfman pulls by HTTPS only: give the registry a certificate, and the file of its CA with --ca-file"
	case errors.As(err, &answer):
		e.answer(ref, answer)
	case errors.As(err, &dns):
		e.Err = dns
		e.Problem = "the name " + dns.Name + " cannot be resolved"
		e.Fix = "check the name, and DNS"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, context.DeadlineExceeded):
		if errors.As(err, &dial) {
			e.Err = dial
		}
		e.Problem = host + " cannot be reached"
		e.Fix = "check the name and port, whether the registry runs, and the proxy (HTTPS_PROXY)"
	case strings.Contains(err.Error(), "error verifying"), strings.Contains(err.Error(), "does not match requested digest"):
		e.Problem, e.Altered = "what "+host+" sends is not what the digest stands for", true
		e.Fix = "it was damaged on the way or in the registry: try again, then push the image again"
	default:
		return fmt.Errorf("%s: %w", ref.Name(), err)
	}
	return e
}

// answer explains an answer of the registry.
func (e *RegistryError) answer(ref name.Reference, a *transport.Error) {
	host, repository := ref.Context().RegistryStr(), ref.Context().RepositoryStr()
	var said []string
	codes := map[transport.ErrorCode]bool{}
	for _, d := range a.Errors {
		codes[d.Code] = true
		said = append(said, strings.TrimSpace(fmt.Sprintf("%s %s", d.Code, d.Message)))
	}
	e.Err = &answerError{status: a.StatusCode, said: strings.Join(said, "; "), err: a}
	login := fmt.Sprintf("log in with docker login %s or podman login %s; REGISTRY_AUTH_FILE names another file of credentials", host, host)
	switch {
	case a.StatusCode == http.StatusUnauthorized:
		e.Problem, e.Fix = host+" wants credentials, or others", login
	case a.StatusCode == http.StatusForbidden:
		e.Problem = fmt.Sprintf("%s does not permit this to the credentials in use", host)
		e.Fix = fmt.Sprintf("ask for the right to %s, or %s", repository, login)
	case codes[transport.NameUnknownErrorCode]:
		e.Problem = fmt.Sprintf("%s has no repository %s", host, repository)
		e.Fix = "check its name; some registries want it to be created before the first push, and some hide it from those who may not see it"
	case a.StatusCode == http.StatusNotFound:
		e.Problem = fmt.Sprintf("repository %s has no image %s", repository, ref.Identifier())
		e.Fix = "check the tag or digest; push it with blixt bytecode push"
	case a.StatusCode == http.StatusTooManyRequests:
		e.Problem, e.Fix = host+" refuses more requests for now", "try again later, or log in"
	case a.StatusCode >= 500:
		e.Problem, e.Fix = host+" fails, after retries as well", "try again later, or ask whoever runs it"
	default:
		e.Problem, e.Fix = host+" refused the request", "see its answer"
	}
}

// answerError is the registry's answer without the URL of the request, which can contain
// tokens.
type answerError struct {
	status int
	said   string
	err    error
}

func (e *answerError) Error() string {
	text := fmt.Sprintf("HTTP %d %s", e.status, http.StatusText(e.status))
	if e.said != "" {
		text += ": " + e.said
	}
	return text
}

func (e *answerError) Unwrap() error { return e.err }
