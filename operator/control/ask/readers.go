// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/access"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Limits of readers.
const (
	// rightsFor is how long rights are used without asking again, and unknownFor a token is
	// taken for unknown: it may have been made a moment ago.
	rightsFor  = time.Minute
	unknownFor = 10 * time.Second
	// maxReaders are remembered, and maxToken is in bytes.
	maxReaders = 256
	maxToken   = 8 << 10
	// reviewsPerSecond are those of tokens that were never known, and some more at once.
	// Whoever guesses tokens must not keep readers from going on.
	reviewsPerSecond = 5
	reviewsAtOnce    = 20
)

// Errors of Readers.
var (
	// ErrUnknown is for a token that is none.
	ErrUnknown = fmt.Errorf("the API server does not know the token, or it is not for audience %s", v1alpha1.ObserveAudience)
	// ErrBusy is for a token that cannot be looked at now.
	ErrBusy = errors.New("too many tokens are being reviewed: try again")
	// errNotReviewed hides from readers what went wrong.
	errNotReviewed = errors.New("the token could not be checked: the operator's log says why")
)

// Reader is who shows a token, and which questions they may ask all nodes.
type Reader struct {
	User string
	May  map[observe.Kind]bool
}

// Readers are those who read a page again and again with the same token. They have the
// rights of those who ask questions. Rights that are withdrawn end within a minute.
type Readers struct {
	e     *endpoint
	clock func() time.Time
	limit *rate.Limiter

	mu    sync.Mutex
	known map[[sha256.Size]byte]*known
}

// known is what is known of a token.
type known struct {
	mu     sync.Mutex // while the API server is asked
	at     time.Time  // zero: was never asked
	reader Reader
	err    error // ErrUnknown, or nil
	valid  atomic.Bool
}

// NewReaders returns Readers whose tokens the API server reviews.
func NewReaders(kube kubernetes.Interface, log *slog.Logger) *Readers {
	return &Readers{
		e: &endpoint{kube: kube, log: log}, clock: time.Now, limit: rate.NewLimiter(reviewsPerSecond, reviewsAtOnce),
		known: map[[sha256.Size]byte]*known{},
	}
}

// Check returns whose a token is. It returns ErrUnknown, ErrBusy, or another error if the
// API server does not answer.
func (r *Readers) Check(ctx context.Context, token string) (Reader, error) {
	if token == "" || len(token) > maxToken || strings.Count(token, ".") != 2 { // no JSON web token
		return Reader{}, ErrUnknown
	}
	k := r.remember(sha256.Sum256([]byte(token)))
	k.mu.Lock()
	defer k.mu.Unlock()
	age, most := r.clock().Sub(k.at), rightsFor
	if k.err != nil {
		most = unknownFor
	}
	if !k.at.IsZero() && age >= 0 && age < most {
		return k.reader, k.err
	}
	if !k.valid.Load() && !r.limit.Allow() {
		return Reader{}, ErrBusy
	}
	reader, err := r.review(ctx, token)
	if err == nil || errors.Is(err, ErrUnknown) {
		k.at, k.reader, k.err = r.clock(), reader, err
		k.valid.Store(err == nil)
	}
	return reader, err
}

// remember returns what is known of a token. If there are too many, it forgets another one,
// a valid one last, which is then reviewed again.
func (r *Readers) remember(key [sha256.Size]byte) *known {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.known[key]
	if k != nil {
		return k
	}
	if len(r.known) >= maxReaders {
		var victim [sha256.Size]byte
		for other, k := range r.known {
			if victim = other; !k.valid.Load() {
				break
			}
		}
		delete(r.known, victim)
	}
	k = &known{}
	r.known[key] = k
	return k
}

func (r *Readers) review(ctx context.Context, token string) (Reader, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	who, err := access.User(ctx, r.e.kube, token, v1alpha1.ObserveAudience)
	switch {
	case errors.Is(err, access.ErrUnknown):
		return Reader{}, ErrUnknown
	case err != nil:
		return Reader{}, r.notReviewed(err)
	}
	return r.rights(ctx, who)
}

func (r *Readers) rights(ctx context.Context, who authenticationv1.UserInfo) (Reader, error) {
	reader := Reader{User: who.Username, May: map[observe.Kind]bool{}}
	for _, kind := range []observe.Kind{observe.KindStatus, observe.KindFlows, observe.KindDrops, observe.KindTrace} {
		may, err := r.e.mayAsk(ctx, who, kind, "")
		if err != nil {
			return Reader{}, errNotReviewed // mayAsk has logged it
		}
		reader.May[kind] = may
	}
	return reader, nil
}

func (r *Readers) notReviewed(err error) error {
	if !errors.Is(err, context.Canceled) {
		r.e.log.Error("tokens of the page cannot be reviewed", "error", err)
	}
	return errNotReviewed
}
