--- What an answer says of its numbers of tokens, kept in a buffer outside Lua until it is over.

local ffi = require "ffi"
local get = require("gateway.requests").get
require "resty.core.param"

ffi.cdef "char *strstr(const char *text, const char *part);"

local C, cast, text_of = ffi.C, ffi.cast, ffi.string
local abs, byte, find, match = math.abs, string.byte, string.find, string.match
local QUOTE, NEWLINE = byte '"', byte "\n"
local bytes, number = ffi.typeof "const uint8_t *", ffi.typeof "uintptr_t"

-- Bytes that are kept of an answer: its beginning, where a long one may come in one piece, and its end, in a ring.
local HEAD, KEPT = 512, 2048
ffi.cdef("struct gw_tail { int head_size, at, full; uint8_t head[" .. HEAD .. "], ring[" .. KEPT .. "]; };")

local AGAIN = -2
local data, length = ffi.new("unsigned char *[1]"), ffi.new("size_t[1]")
local looked_at, joined = ffi.new("char[?]", KEPT + 1), nil

local free = {}

-- How many pieces each answer had so far; below zero where the last one ended within a line. A token of a stream touches
-- this and no more of what is known of its request: between two of them all memory goes cold.
local open = {}

local M = {}

local function keep(tail, from, size)
    if size > KEPT then
        if tail.at == 0 and tail.full == 0 then
            ffi.copy(tail.head, from, HEAD)
            tail.head_size = HEAD
        end
        from, size = from + (size - KEPT), KEPT
    end
    local at = tail.at
    local room = KEPT - at
    if size < room then
        ffi.copy(tail.ring + at, from, size)
        tail.at = at + size
        return
    end
    ffi.copy(tail.ring + at, from, room)
    ffi.copy(tail.ring, from + room, size - room)
    tail.at, tail.full = size - room, 1
end

-- What was kept last.
local function text(tail)
    local newest = text_of(tail.ring, tail.at)
    return tail.full == 1 and text_of(tail.ring + tail.at, KEPT - tail.at) .. newest or newest
end

-- Whether whole lines may tell numbers of tokens: what each name of one (IN, below) has in it.
local function may_tell(from, size)
    if size > KEPT then
        return true
    end
    -- The search that ends at a zero is the fastest by far, and a copy in memory that is warm costs next to nothing.
    ffi.copy(looked_at, from, size)
    looked_at[size] = 0
    return C.strstr(looked_at, "_tokens") ~= nil or C.strstr(looked_at, "prompt_") ~= nil
end

local function tail_of(one)
    local tail = one.tail
    if not tail then
        tail = table.remove(free) or ffi.new("struct gw_tail")
        tail.head_size, tail.at, tail.full = 0, 0, 0
        one.tail = tail
    end
    return tail
end

-- The piece of an answer that is on its way to the client. As a Lua string each would be hashed and kept until the
-- collector comes: half the price of a token.
local function piece(request)
    local rc = C.ngx_http_lua_ffi_get_body_filter_param_body(request, data, length)
    local size = tonumber(length[0])
    if rc ~= AGAIN then
        return cast(bytes, data[0]), size
    end
    -- Held, or the collector could take it while its bytes are looked at.
    joined = ffi.new("uint8_t[?]", size)
    C.ngx_http_lua_ffi_copy_body_filter_param_body(request, joined)
    return cast(bytes, joined), size
end

-- Counts a piece, the one after `before`, and keeps it if it matters; returns how many bytes it has.
local function count_piece(request, key, before)
    local from, size = piece(request)
    if size == 0 then
        return 0
    end
    local whole = from[size - 1] == NEWLINE
    if whole and before >= 0 and not may_tell(from, size) then
        open[key] = before + 1
        return size
    end
    keep(tail_of(get()), from, size)
    local count = abs(before) + 1
    open[key] = whole and count or -count
    return size
end

--- Notes the first piece of an answer; returns how many bytes it has.
function M.begin(request)
    return count_piece(request, tonumber(cast(number, request)), 0)
end

--- Notes a later piece; returns how many bytes it has, nil where the answer has not begun.
function M.note(request)
    local key = tonumber(cast(number, request))
    local before = open[key]
    return before and count_piece(request, key, before)
end

--- Takes the buffer back; returns how many pieces the answer had.
function M.done(one, request)
    local tail = one.tail
    if tail then
        free[#free + 1] = tail
        one.tail = nil
    end
    local key = tonumber(cast(number, request))
    local pieces = open[key]
    if not pieces then
        return 0
    end
    open[key] = nil
    return abs(pieces)
end

-- OpenAI's, the Responses API's and Anthropic's, Ollama's, and llama.cpp's own beside its answers. The last one counts.
local IN = { "prompt_tokens", "input_tokens", "prompt_eval_count", "prompt_n" }
local OUT = { "completion_tokens", "output_tokens", "eval_count", "predicted_n" }

-- The digits behind a key that ends at `last`, or else the one that was found before.
local function digits(text, first, last, before)
    local found = byte(text, first - 1) == QUOTE and match(text, '^"%s*:%s*(%d+)', last + 1)
    return found or before
end

local function last_of_many(text, key, first, last, found)
    while first do
        found = digits(text, first, last, found)
        first, last = find(text, key, last + 1, true)
    end
    return found
end

-- The digits that a key has where it stands last. Its bytes are looked for, not a pattern, which costs thirty times that,
-- and without the first quote: letters are rarer. There is one mostly, and a loop would not be compiled with the rest.
local function last_number(text, key)
    local first, last = find(text, key, 1, true)
    if not first then
        return nil
    end
    local found = digits(text, first, last, nil)
    first, last = find(text, key, last + 1, true)
    if first then
        found = last_of_many(text, key, first, last, found)
    end
    return found
end

local function counts(answer)
    for n = 1, #IN do
        local taken = last_number(answer, IN[n])
        if taken then
            return taken, last_number(answer, OUT[n]) or "0"
        end
    end
end

--- Tokens of the request and of its answer, in digits as they stand there; nil where the engine does not say.
function M.tokens(one)
    local tail = one.tail
    if not tail then
        return nil
    end
    local taken, given = counts(text(tail))
    if not taken and tail.head_size > 0 then
        return counts(text_of(tail.head, tail.head_size))
    end
    return taken, given
end

return M
