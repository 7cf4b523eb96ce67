// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// What is drained by hand is in a file, and not told to the process: so it survives the
// process and the host, can be changed while no process runs, and nobody who may ask the
// process may also change what it serves. Whoever may write the file may drain.

// drainedRecord is the contents of the file.
type drainedRecord struct {
	Drained []drainedAddress `json:"drained"`
}

type drainedAddress struct {
	// Address is an IP address, which stands for all its ports, or one with a port.
	Address string `json:"address"`
	lb.Drained
}

// Limits of the file.
const (
	largestDrained = 1 << 20 // bytes
	mostDrained    = 4096    // addresses
	longestUser    = 128     // bytes of a user's name
)

// DrainedFile returns the file with what is drained by hand in the load balancer of a name.
// It outlives the host's next boot, unless the run directory is another one than usually.
func DrainedFile(runDir, name string) string {
	if filepath.Clean(runDir) == loader.DefaultRunDir {
		runDir = DefaultStateDir
	}
	return filepath.Join(runDir, name+".drained.json")
}

// ReadDrained returns what a file says is drained; nothing, if there is none. It returns an
// error for a file that others than root and the caller could have written, and for one
// that is not as ChangeDrained writes it.
func ReadDrained(path string) (lb.DrainedSet, error) {
	set, err := readDrained(path)
	if errors.Is(err, fs.ErrNotExist) {
		return lb.DrainedSet{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("what is drained by hand is not known: read %s: %w: mend the file, or remove it", path, pathless(err))
	}
	return set, nil
}

// pathless returns what an error says beside the path, which its reader has.
func pathless(err error) error {
	if e, is := errors.AsType[*fs.PathError](err); is {
		return e.Err
	}
	return err
}

func readDrained(path string) (lb.DrainedSet, error) {
	f, err := openNoLink(path)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, errors.New("it is a link")
	case err != nil:
		return nil, err
	}
	defer f.Close()
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return nil, err
	}
	switch {
	case s.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("it is no regular file")
	case s.Uid != 0 && int(s.Uid) != os.Geteuid():
		return nil, fmt.Errorf("it belongs to user %d, whose files are not believed", s.Uid)
	case s.Mode&0o022 != 0:
		return nil, fmt.Errorf("others may write it (mode %04o)", s.Mode&0o7777)
	case s.Nlink != 1:
		return nil, errors.New("it has another name, too (a hard link)")
	case s.Size > largestDrained:
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", s.Size, largestDrained)
	}
	text, err := io.ReadAll(io.LimitReader(f, largestDrained))
	if err != nil {
		return nil, err
	}
	return parseDrained(text)
}

// parseDrained is the reverse of formatDrained.
func parseDrained(text []byte) (lb.DrainedSet, error) {
	var r drainedRecord
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	switch {
	case r.Drained == nil:
		return nil, errors.New("it has no member \"drained\"")
	case len(r.Drained) > mostDrained:
		return nil, fmt.Errorf("it has %d addresses, at most %d are read", len(r.Drained), mostDrained)
	}
	set := lb.DrainedSet{}
	for _, a := range r.Drained {
		at, err := parseDrainedAddress(a.Address)
		if err != nil {
			return nil, err
		}
		if a.Since.IsZero() || a.By == "" || len(a.By) > longestUser {
			return nil, fmt.Errorf("address %s: want since, and by of at most %d bytes", a.Address, longestUser)
		}
		set[at] = &lb.Drained{Since: a.Since.UTC(), By: a.By}
	}
	return set, nil
}

// parseDrainedAddress parses ADDRESS or ADDRESS:PORT.
func parseDrainedAddress(text string) (at netip.AddrPort, err error) {
	if at, err = netip.ParseAddrPort(text); err == nil && at.Port() == 0 {
		err = errors.New("port 0")
	}
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(text); err != nil {
			return at, fmt.Errorf("%q: want an address or address:port", text)
		}
		at = netip.AddrPortFrom(a, 0)
	}
	a := at.Addr()
	if a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		return at, fmt.Errorf("%q can be no backend", text)
	}
	return netip.AddrPortFrom(a.Unmap(), at.Port()), nil
}

// formatDrained returns the text of the file.
func formatDrained(set lb.DrainedSet) ([]byte, error) {
	r := drainedRecord{Drained: []drainedAddress{}}
	for at, d := range set {
		r.Drained = append(r.Drained, drainedAddress{DrainedName(at), *d})
	}
	slices.SortFunc(r.Drained, func(a, b drainedAddress) int { return bytes.Compare([]byte(a.Address), []byte(b.Address)) })
	text, err := json.MarshalIndent(r, "", "  ")
	return append(text, '\n'), err
}

// DrainedName returns an address of a lb.DrainedSet as people write it.
func DrainedName(at netip.AddrPort) string {
	if at.Port() == 0 {
		return at.Addr().String()
	}
	return at.String()
}

// lockPatience is how long to wait for another command that changes the same file.
const lockPatience = 10 * time.Second

// ChangeDrained has a function change what is drained by hand, and writes it. Nobody else
// changes it meanwhile. Nothing is written if the function returns an error.
func ChangeDrained(ctx context.Context, path string, change func(lb.DrainedSet) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	for end := time.Now().Add(lockPatience); ; {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return fmt.Errorf("lock %s: another blixt drain or undrain has it: %w", dir, err)
		}
		if !pause(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	set, err := ReadDrained(path)
	if err != nil {
		return err
	}
	before, err := formatDrained(set)
	if err != nil {
		return err
	}
	if err := change(set); err != nil {
		return err
	}
	if len(set) > mostDrained {
		return fmt.Errorf("%d addresses would be drained, at most %d can be", len(set), mostDrained)
	}
	after, err := formatDrained(set)
	switch {
	case err != nil || bytes.Equal(before, after):
		return err
	case len(set) == 0:
		err = os.Remove(path)
	default:
		err = renameio.WriteFile(path, after, 0o644, renameio.WithTempDir(dir), renameio.IgnoreUmask())
	}
	if err != nil {
		return err
	}
	return lock.Sync() // so that the file has its name after a loss of power, too
}
