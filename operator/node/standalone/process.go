// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/clock"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// ProcessStatus is what the process of a load balancer says of itself to other processes: who
// it is, that it is alive, and what is wrong. It says so in a file, which a process that
// hangs, or was killed, leaves as it was last.
type ProcessStatus struct {
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Files are what it was told to read, and StateDir where it keeps what was good.
	Files    []string `json:"files,omitempty"`
	StateDir string   `json:"stateDir,omitempty"`
	// Given are the objects that flags describe.
	Given []source.Given `json:"given,omitempty"`
	// Recursive is true if it reads subdirectories, too.
	Recursive bool `json:"recursive,omitempty"`
	Decisions
	// Alive is when it last could have made a change, by clock.Monotonic.
	Alive time.Duration `json:"alive"`
	// Serves is true since its first state is in force.
	Serves bool `json:"serves"`
	// Kept is true if it has ended, and was told to leave the kernel serving.
	Kept bool `json:"kept,omitempty"`
	// Problems are what it has logged and not taken back, the worst first. More is how
	// many are left out.
	Problems []Problem `json:"problems"`
	More     int       `json:"more,omitempty"`
}

// Problem is something that is wrong.
type Problem struct {
	Level slog.Level `json:"level"`
	// About is file, mistake, forwarding and the like.
	About   string    `json:"about"`
	Since   time.Time `json:"since"`
	Message string    `json:"message"`
}

// How much a file holds: who writes objects decides how much is wrong with them.
const (
	mostProblems  = 200
	longestReport = 2000    // bytes of a message
	largestStatus = 1 << 20 // bytes of a file
)

// statusEvery is how often the file is written at least, as a sign of life, and
// statusPause how long the next change waits.
const (
	statusEvery = 10 * time.Second
	statusPause = 200 * time.Millisecond
)

// StatusFile returns the file in which the load balancer of a name says how it is.
func StatusFile(runDir, name string) string { return filepath.Join(runDir, name+".process.json") }

// ReadProcessStatus returns what the load balancer of a name has said last. The error wraps
// fs.ErrNotExist if it has said nothing. What is in the file may be of a process that has
// ended.
func ReadProcessStatus(runDir, name string) (h ProcessStatus, err error) {
	path := StatusFile(runDir, name)
	f, err := openNoLink(path)
	if err != nil {
		return h, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return h, errors.Join(fmt.Errorf("%s is no regular file", path), err)
	}
	text, err := io.ReadAll(io.LimitReader(f, largestStatus))
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		return h, fmt.Errorf("read %s: %w", path, err)
	}
	return h, nil
}

// openNoLink opens a file that may have been replaced by something else: a pipe would have
// the caller wait, and a link lead it elsewhere. A link is ELOOP.
func openNoLink(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// statusFile writes a ProcessStatus in the background, as a disk may be slow or full: that must
// delay no change.
type statusFile struct {
	path    string
	collect func() ProcessStatus
	// dirty has an item while there is something new.
	dirty         chan struct{}
	closing, done chan struct{}
	told          func(error) // is told whether writing works
}

func openStatus(path string, collect func() ProcessStatus, told func(error)) *statusFile {
	f := &statusFile{path, collect, make(chan struct{}, 1), make(chan struct{}), make(chan struct{}), told}
	go f.run()
	return f
}

// touch has the file written soon.
func (f *statusFile) touch() {
	if f == nil { // it has not begun
		return
	}
	select {
	case f.dirty <- struct{}{}:
	default:
	}
}

func (f *statusFile) run() {
	defer close(f.done)
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		f.told(f.write(f.collect()))
		select {
		case <-f.closing:
			return
		case <-time.After(statusPause):
		}
		select {
		case <-f.closing:
			return
		case <-tick.C:
		case <-f.dirty:
		}
	}
}

func (f *statusFile) write(h ProcessStatus) error {
	text, err := json.Marshal(h)
	if err == nil {
		err = renameio.WriteFile(f.path, text, 0o644, renameio.WithTempDir(filepath.Dir(f.path)), renameio.IgnoreUmask())
	}
	if err != nil {
		return fmt.Errorf("blixt status does not see what is wrong: write %s: %w", f.path, err)
	}
	return nil
}

// close ends the writing. With keep the file stays, and says that the kernel goes on
// serving as it was asked to, if it was.
func (f *statusFile) close(keep, asked bool) {
	if f == nil {
		return
	}
	close(f.closing)
	<-f.done
	h := f.collect()
	h.Kept = asked
	var err error
	if keep {
		err = f.write(h)
	} else if err = os.Remove(f.path); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		slog.Warn(text(err))
	}
}

// statusNow returns how this process is.
func (r *runner) statusNow() ProcessStatus {
	h := ProcessStatus{
		PID: os.Getpid(), Version: r.Version, Started: r.started, Files: absolute(r.Files.Paths), StateDir: r.Files.StateDir,
		Given: r.Files.Given, Recursive: r.Files.Recursive, Decisions: Decisions{r.NodeName, r.FlowRecords, r.Lenient, r.SNATPorts},
		Alive: time.Duration(r.alive.Load()), Serves: r.health.ready() == nil,
	}
	h.Problems = r.log.problems()
	if h.More = len(h.Problems) - mostProblems; h.More > 0 {
		h.Problems = h.Problems[:mostProblems]
	} else {
		h.More = 0
	}
	return h
}

// absolute returns paths as processes in other directories can open them.
func absolute(paths []string) (all []string) {
	for _, path := range paths {
		if full, err := filepath.Abs(path); err == nil && path != "-" {
			path = full
		}
		all = append(all, path)
	}
	return all
}

// lives notes that a change could be made now.
func (r *runner) lives() { r.alive.Store(int64(clock.Monotonic())) }

// problems returns what was logged as a warning or worse and holds still, the worst first.
func (l *onceLog) problems() []Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.open), func(a, b Problem) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(a.About, b.About), cmp.Compare(a.Message, b.Message))
	})
}

// follow has a function called whenever problems differ.
func (l *onceLog) follow(changed func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = changed
}

// note has problems say what was just logged about a subject. The caller holds l.mu.
func (l *onceLog) note(subject, about string, level slog.Level, message string) {
	was, is := l.open[subject]
	if message == "" || level < slog.LevelWarn {
		delete(l.open, subject)
	} else {
		p := Problem{level, about, time.Now(), phrase.Clip(message, longestReport)}
		if is {
			p.Since = was.Since
		}
		if l.open == nil {
			l.open = map[string]Problem{}
		}
		l.open[subject] = p
	}
	if l.changed != nil {
		l.changed()
	}
}
