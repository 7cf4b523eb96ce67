// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Image is what a registry has under a name with a digest.
type Image struct {
	Name string `json:"name"`
	// Layout of its maps.
	Layout int32 `json:"layout,omitempty"`
	// VerifiedBy are the fingerprints of the keys that have verified a signature.
	VerifiedBy []string `json:"verifiedBy,omitempty"`
	// Reason and Problem say what is wrong with the image; "": nothing.
	Reason  string `json:"reason,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// ReadImages reads the image of each application, and the declared one, from their
// registries, and verifies them with keys and those of the BlixtConfig. Returns an error
// for an invalid key, or if the BlixtConfig's pull secret cannot be read.
func (f *Facts) ReadImages(ctx context.Context, c client.Client, o bytecode.Options, keys []*bytecode.PublicKey) error {
	spec, declared := Declared(f)
	names := []string{}
	if declared != "" {
		names = append(names, declared)
	}
	for i := range f.Applications {
		if image := f.Applications[i].Spec.ByteCode.Image; v1alpha1.Managed(&f.Applications[i]) && image != nil && !slices.Contains(names, image.Url) {
			names = append(names, image.Url)
		}
	}
	for i, text := range spec.Bytecode.VerificationKeys {
		key, err := bytecode.ParsePublicKey(fmt.Sprintf("verificationKeys[%d] of the BlixtConfig", i), []byte(text))
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	if secret := spec.Bytecode.PullSecret; secret != nil && o.Keychain == nil {
		stored := &corev1.Secret{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: secret.Namespace, Name: secret.Name}, stored); err != nil {
			return fmt.Errorf("get pull secret %s/%s of the BlixtConfig: %w: run blixt audit as a user who may read it, or with --offline", secret.Namespace, secret.Name, err)
		}
		keychain, err := bytecode.ReadPullSecret(stored.Data)
		if err != nil {
			return fmt.Errorf("pull secret %s/%s of the BlixtConfig: %w", secret.Namespace, secret.Name, err)
		}
		o.Keychain = keychain
	}
	o.Keys, o.AnyArchitecture = keys, true
	for _, name := range names {
		f.Images = append(f.Images, readImage(ctx, name, o))
	}
	return nil
}

func readImage(ctx context.Context, name string, o bytecode.Options) Image {
	im := Image{Name: name}
	stored, err := bytecode.Open(ctx, name, o)
	if err != nil {
		im.Reason, im.Problem = unread(err, ImageUnread), err.Error()
		return im
	}
	loaded, err := stored.Load(o)
	if err != nil {
		im.Reason, im.Problem = unread(err, ImageNotVerified), err.Error()
		return im
	}
	im.Layout = int32(loaded.Object.Layout)
	for _, s := range loaded.Signatures {
		i := slices.IndexFunc(o.Keys, func(k *bytecode.PublicKey) bool { return k.Name == s.VerifiedBy })
		if i >= 0 && !slices.Contains(im.VerifiedBy, o.Keys[i].ID) {
			im.VerifiedBy = append(im.VerifiedBy, o.Keys[i].ID)
		}
	}
	return im
}

// unread returns the reason for an error of an image: the registry does not have it,
// sends another, or cannot be reached; for any other error it returns otherwise.
func unread(err error, otherwise string) string {
	answer, answered := errors.AsType[*transport.Error](err)
	registry, known := errors.AsType[*bytecode.RegistryError](err)
	switch {
	case answered && answer.StatusCode == http.StatusNotFound:
		return ImageNotFound
	case known && registry.Altered:
		return ImageNotVerified
	case known:
		return ImageUnread
	}
	return otherwise
}

// images compares the registries' images with what nodes report.
func (a *auditor) images() {
	for _, im := range a.Images {
		switch im.Reason {
		case "":
		case ImageUnread:
			a.failed(ImageUnread, "image "+im.Name, "", "%s. With --offline the audit does not connect to registries.", im.Problem)
		default:
			a.failed(im.Reason, "image "+im.Name, "", "%s", im.Problem)
		}
		for _, p := range a.report.Programs {
			if im.Layout != 0 && p.Image+"@"+p.Digest == im.Name && p.Layout != 0 && p.Layout != im.Layout {
				a.failed(AnotherLayout, "NodeDataplane "+p.Node, p.Node, "the agent reports maps of layout %d, and the image has layout %d", p.Layout, im.Layout)
			}
		}
	}
}
