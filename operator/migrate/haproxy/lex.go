// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"fmt"
	"strconv"
	"strings"
)

// environment are variables that the configuration itself sets. Those of the process are
// not known.
type environment map[string]string

// lexed are the words of a line, with what became of its variables.
type lexed struct {
	words []string
	// unknown is a variable without a known value. Its word has it as it was written.
	unknown string
	// assumed is a variable of which the default value was taken.
	assumed string
}

// lexer cuts a line into words, by the rules of HAProxy's configuration manual, sections
// 2.2 and 2.3: backslashes, strong and weak quotes, and variables in the latter.
type lexer struct {
	lexed
	text  string
	at    int
	env   environment
	word  strings.Builder
	begun bool // a word has begun: "" is one, too
}

// lex returns the words of a line, or the first ones of too many.
func lex(text string, env environment) (lexed, error) {
	l := lexer{text: text, env: env}
	for l.at < len(l.text) && len(l.words) <= maxWords {
		c := l.text[l.at]
		var err error
		switch {
		case c == '#':
			l.at = len(l.text)
		case c == ' ', c == '\t', c == '\r':
			l.end()
			l.at++
		case c == '\'':
			err = l.strong()
		case c == '"':
			err = l.weak()
		case c == '\\':
			err = l.escape(false)
		default:
			l.add(c)
			l.at++
		}
		if err != nil {
			return lexed{}, err
		}
	}
	l.end()
	return l.lexed, nil
}

func (l *lexer) add(c byte) {
	l.begun = true
	l.word.WriteByte(c)
}

func (l *lexer) end() {
	if l.begun {
		l.words = append(l.words, l.word.String())
		l.word.Reset()
		l.begun = false
	}
}

// strong takes '...', in which nothing has a meaning.
func (l *lexer) strong() error {
	l.begun = true
	text, _, ok := strings.Cut(l.text[l.at+1:], "'")
	if !ok {
		return fmt.Errorf("the quote ' at byte %d has no end", l.at+1)
	}
	l.word.WriteString(text)
	l.at += len(text) + 2
	return nil
}

// weak takes "...".
func (l *lexer) weak() error {
	l.begun = true
	start := l.at
	for l.at++; l.at < len(l.text); {
		var err error
		switch c := l.text[l.at]; c {
		case '"':
			l.at++
			return nil
		case '\\':
			err = l.escape(true)
		case '$':
			err = l.variable()
		default:
			l.add(c)
			l.at++
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("the quote \" at byte %d has no end", start+1)
}

// escape takes a backslash with what follows. What is no escape sequence stays as it is.
func (l *lexer) escape(quoted bool) error {
	if l.at+1 == len(l.text) {
		return fmt.Errorf("the line ends with a backslash: HAProxy does not continue lines")
	}
	c := l.text[l.at+1]
	switch {
	case c == 'n', c == 'r', c == 't':
		c = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t'}[c]
	case c == 'x':
		code, err := strconv.ParseUint(l.text[l.at+2:min(l.at+4, len(l.text))], 16, 8)
		if err != nil || l.at+4 > len(l.text) {
			return fmt.Errorf("\\x at byte %d needs two hexadecimal digits", l.at+1)
		}
		c = byte(code)
		l.at += 2
	case strings.IndexByte(" \t\\#'\"", c) >= 0, quoted && c == '$':
	default:
		l.add('\\')
		l.at++
		return nil
	}
	l.add(c)
	l.at += 2
	return nil
}

// variable takes $NAME, ${NAME}, ${NAME-default} or ${NAME[*]}.
func (l *lexer) variable() error {
	rest := l.text[l.at+1:]
	braces := strings.HasPrefix(rest, "{")
	if braces {
		rest = rest[1:]
	}
	n := 0
	for n < len(rest) && (isNameByte(rest[n]) || n == 0 && rest[n] == '.') {
		n++
	}
	name, fallback, hasFallback, list, taken := rest[:n], "", false, false, n
	if braces {
		end := strings.IndexByte(rest, '}')
		if end < 0 {
			return fmt.Errorf("${ at byte %d has no }", l.at+1)
		}
		more := rest[n:end]
		more, list = strings.CutPrefix(more, "[*]")
		fallback, hasFallback = strings.CutPrefix(more, "-")
		if more != "" && !hasFallback {
			return fmt.Errorf("%q is no name of a variable", rest[:end])
		}
		taken = end + 2
	}
	if name == "" {
		return fmt.Errorf("$ at byte %d has no name of a variable: write \\$ for the character", l.at+1)
	}
	written := l.text[l.at : l.at+1+taken]
	l.at += 1 + taken
	value, known := l.env[name]
	switch {
	case known:
	case hasFallback:
		value, l.assumed = fallback, name
	default:
		value, l.unknown = written, name
	}
	if !list {
		l.word.WriteString(value)
		return nil
	}
	for i, part := range strings.Fields(value) { // a list is several words
		if i > 0 {
			l.end()
			l.begun = true
		}
		l.word.WriteString(part)
	}
	return nil
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}
