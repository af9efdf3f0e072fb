--- The end of each answer, kept in a buffer outside Lua: there stand the numbers of tokens.

local ffi = require "ffi"
require "resty.core.param"

local C, cast, text_of = ffi.C, ffi.cast, ffi.string
local byte, find, match = string.byte, string.find, string.match
local QUOTE = byte '"'
local bytes, number = ffi.typeof "const uint8_t *", ffi.typeof "uintptr_t"

-- Bytes that are kept of an answer: its beginning, where a long one may come in one piece, and its end, in a ring.
local HEAD, KEPT = 512, 2048
ffi.cdef("struct gw_tail { int pieces, head_size, at, full; uint8_t head[" .. HEAD .. "], ring[" .. KEPT .. "]; };")

local AGAIN = -2
local data, length = ffi.new("unsigned char *[1]"), ffi.new("size_t[1]")

local free = {}

-- The buffer of each request whose answer has begun. A piece of it touches this and no more of what is known of a request:
-- between two tokens of a stream all memory goes cold.
local open = {}

local M = {}

local function keep(tail, from, size)
    if size > KEPT then
        if tail.pieces == 1 then
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

-- What is kept of an answer's end.
local function text(tail)
    local newest = text_of(tail.ring, tail.at)
    return tail.full == 1 and text_of(tail.ring + tail.at, KEPT - tail.at) .. newest or newest
end

-- Keeps the piece of an answer that is on its way to the client; returns how many bytes it has.
local function keep_piece(tail, request)
    -- As a Lua string each piece would be hashed and kept until the collector comes: half the price of a token.
    local rc = C.ngx_http_lua_ffi_get_body_filter_param_body(request, data, length)
    local size = tonumber(length[0])
    if size == 0 then
        return 0
    end
    tail.pieces = tail.pieces + 1
    if rc ~= AGAIN then
        keep(tail, cast(bytes, data[0]), size)
    else
        local buffer = ffi.new("uint8_t[?]", size)
        C.ngx_http_lua_ffi_copy_body_filter_param_body(request, buffer)
        keep(tail, cast(bytes, buffer), size)
    end
    return size
end

--- Notes the first piece of an answer; returns how many bytes it has.
function M.begin(one, request)
    local tail = table.remove(free) or ffi.new("struct gw_tail")
    tail.pieces, tail.head_size, tail.at, tail.full = 0, 0, 0, 0
    local size = keep_piece(tail, request)
    if size == 0 then
        free[#free + 1] = tail
    else
        one.tail = tail
        open[tonumber(cast(number, request))] = tail
    end
    return size
end

--- Notes a later piece; returns how many bytes it has, nil where the answer has not begun.
function M.note(request)
    local tail = open[tonumber(cast(number, request))]
    return tail and keep_piece(tail, request)
end

--- The pieces that an answer had so far.
function M.pieces(one)
    return one.tail and one.tail.pieces or 0
end

--- Takes the buffer back.
function M.done(one, request)
    if one.tail then
        open[tonumber(cast(number, request))] = nil
        free[#free + 1] = one.tail
        one.tail = nil
    end
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
