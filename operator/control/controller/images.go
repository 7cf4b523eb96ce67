// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// verifyLimit is how long a registry may take. verifyPause is how long to wait after
// a failure.
const (
	verifyLimit = time.Minute
	verifyPause = 30 * time.Second
)

// VerifyFunc returns the fingerprint of the key that has signed an image, one
// of the given ones in PEM. DockerConfig is the content of a pull secret, or
// nil. Returns an error if no key has signed it.
type VerifyFunc func(ctx context.Context, image string, keys []string, dockerConfig []byte) (fingerprint string, err error)

// images verifies signatures beside the passes: a registry may be slow or
// unreachable.
type images struct {
	verify   VerifyFunc
	clock    func() time.Time
	done     func()
	measures *measures

	mu      sync.Mutex
	results map[string]*result
}

// result of verifying one image with some keys.
type result struct {
	running     bool
	at          time.Time
	fingerprint string
	err         error
}

var errVerifying = errors.New("its signature is being verified")

func newImages(verify VerifyFunc, clock func() time.Time, m *measures, done func()) *images {
	return &images{verify: verify, clock: clock, measures: m, done: done, results: map[string]*result{}}
}

// check returns the fingerprint of the key that has signed the bytecode, "" if no
// keys are given. The result for an image, which is named by digest, is final once
// the signature was valid.
func (i *images) check(ctx context.Context, b *v1alpha1.Bytecode, dockerConfig []byte) (fingerprint string, err error) {
	if len(b.VerificationKeys) == 0 {
		return "", nil
	}
	key := b.Image + "\n" + strings.Join(b.VerificationKeys, "\n")
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.results[key]
	if r == nil {
		r = &result{err: errVerifying}
		i.results[key] = r
	}
	if r.err != nil && !r.running && i.clock().Sub(r.at) >= verifyPause {
		r.running = true
		keys := slices.Clone(b.VerificationKeys)
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyLimit)
			defer cancel()
			fingerprint, err := i.verify(ctx, b.Image, keys, dockerConfig)
			i.measures.verified(err)
			i.mu.Lock()
			*r = result{at: i.clock(), fingerprint: fingerprint, err: err}
			i.mu.Unlock()
			i.done()
		}()
	}
	return r.fingerprint, r.err
}

// checkBytecode returns the fingerprint of the key that has signed the bytecode, or
// why it must not be loaded.
func (r *rolloutLoop) checkBytecode(ctx context.Context, b *v1alpha1.Bytecode) (fingerprint, refused string) {
	var dockerConfig []byte
	if b.PullSecret != nil && len(b.VerificationKeys) > 0 {
		secret := &corev1.Secret{}
		key := client.ObjectKey{Namespace: b.PullSecret.Namespace, Name: b.PullSecret.Name}
		if err := r.direct.Get(ctx, key, secret); err != nil {
			return "", fmt.Sprintf("pull secret %s cannot be read: %v", key, err)
		}
		var err error
		if dockerConfig, err = bytecode.ReadPullSecret(secret.Data); err != nil {
			return "", fmt.Sprintf("pull secret %s: %v", key, err)
		}
	}
	fingerprint, err := r.images.check(ctx, b, dockerConfig)
	if err != nil {
		return "", fmt.Sprintf("bytecode %s: %v", b.Image, err)
	}
	return fingerprint, ""
}

// Verify is the VerifyFunc that asks the registry.
func Verify(ctx context.Context, image string, keys []string, dockerConfig []byte) (string, error) {
	o := bytecode.Options{AnyArchitecture: true, Keychain: bytecode.PullSecret(dockerConfig)}
	for i, pem := range keys {
		key, err := bytecode.ParsePublicKey(fmt.Sprintf("verificationKeys[%d]", i), []byte(pem))
		if err != nil {
			return "", err
		}
		o.Keys = append(o.Keys, key)
	}
	loaded, err := bytecode.Load(ctx, image, o)
	if err != nil {
		return "", err
	}
	for _, s := range loaded.Signatures {
		if i := slices.IndexFunc(o.Keys, func(k *bytecode.PublicKey) bool { return k.Name == s.VerifiedBy }); i >= 0 {
			return o.Keys[i].ID, nil
		}
	}
	return "", fmt.Errorf("%s: no key has signed it", image) // cannot be: Load checks it
}
