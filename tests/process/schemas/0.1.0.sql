-- Made by version 0.1.0: five messages of which one is hidden, a ban, slow mode.
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE message (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        session TEXT NOT NULL,
        username TEXT NOT NULL,
        content TEXT NOT NULL,
        text TEXT NOT NULL,
        timestamp REAL NOT NULL,
        nonce TEXT,
        role TEXT NOT NULL
    , hidden INTEGER);
INSERT INTO "message" VALUES(1,'7f35b61d-b488-4ff8-b1b6-00019e5c1dfa','791e228b-2010-4011-aa44-522d46edd042','ada','Hello','Hello',1.79569848983538699147e+09,'n-0','visitor',NULL);
INSERT INTO "message" VALUES(2,'1e20c8ff-4e14-49ec-b868-5e0d4acd7c92','791e228b-2010-4011-aa44-522d46edd042','','','',1.79569848983675551417e+09,'n-1','visitor',4);
INSERT INTO "message" VALUES(3,'16569391-1e70-4765-bed5-f3c41e58a887','791e228b-2010-4011-aa44-522d46edd042','ada','&lt;b&gt;&amp;&lt;/b&gt;','<b>&</b>',1.79569848984377145768e+09,'n-2','visitor',NULL);
INSERT INTO "message" VALUES(4,'ec9d3d3a-3cb6-4099-a255-740136be5fd5','791e228b-2010-4011-aa44-522d46edd042','ada','drei ☃','drei ☃',1.79569848985125446322e+09,'n-3','visitor',NULL);
INSERT INTO "message" VALUES(5,'47a898f2-9e26-4637-a72c-2da0e582161c','owner','owner','The owner''s','The owner''s',1.79569848986713719368e+09,NULL,'owner',NULL);
CREATE TABLE room (epoch TEXT NOT NULL, secret TEXT NOT NULL, probes INTEGER NOT NULL, rules TEXT NOT NULL DEFAULT '', pruned INTEGER NOT NULL DEFAULT 0);
INSERT INTO "room" VALUES('800a7a73-8c29-483f-aa5d-2cabd3252f57','30d4c0516e0aeacda2a17f439b5b1fe229f63d8a180e66edf028549e12f26bcb',4,'{"slow_mode":5.0,"bans":{"eve":{"username":"eve","reason":"spam"}}}',0);
CREATE UNIQUE INDEX message_by_nonce ON message (session, nonce) WHERE nonce IS NOT NULL;
CREATE INDEX message_by_hiding ON message (hidden) WHERE hidden IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('message',5);
COMMIT;
